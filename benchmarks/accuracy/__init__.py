"""What int8 costs three real models in accuracy, recipe by recipe: `make accuracy`."""
