"""Studies: many people, many models, many layers, with results that can be trusted, resumed and repeated."""
