"""What commands share: `paths` for inputs from pipes and checks of outputs, `results` for their names, `errors`."""
