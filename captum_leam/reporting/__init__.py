"""Pages and tables of results: explanations of files, and the report of a study."""
