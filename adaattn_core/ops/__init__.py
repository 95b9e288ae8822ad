"""Pure tensor functions: attention statistics, key pruning, tiling, Winograd convolution, masks, colour, resizing.

For other packages: `attention_moments`, `AttentionKernel`, `AttentionMasks`, `channel_mean_std`, `normalize_channels`,
`weighted_mean_std`, `to_float32`, `row_tiles`, `conv3x3`, `fit_mask`, `shape_mask`, `keep_color`, `resize_image`, and
the chunk sizes for the cost model.
"""
