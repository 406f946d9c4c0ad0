"""What every stage uses: commands, files, parameters, tensors on disk and the data set."""
