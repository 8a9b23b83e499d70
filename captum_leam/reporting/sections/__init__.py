"""The sections of a study's report: each reads the findings, draws its plates and says what they show."""
