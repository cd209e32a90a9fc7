"""What to measure: the study file's models, its sweep grammar, the engines' parameters."""
