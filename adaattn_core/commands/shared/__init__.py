"""What commands share about files: `paths` for inputs from pipes and checks of outputs, `results` for their names."""
