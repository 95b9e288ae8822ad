"""Training: the data set, the losses, the optimiser's steps and the run folder.

Other packages use `TrainConfig` (config), `train` (loop), `Trainer` (trainer), `batches` (dataloader), `CHECKPOINT`
(run_checkpoint) and the losses.
"""
