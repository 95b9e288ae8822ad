"""Stylizing pictures with a trained model: in one call, in stages, in bounded memory.

For other packages: `stylize.stylize` and `encode_style`; the stages `extract_features`, `encode_style_features`,
`transfer` and `decode` with `TransferOptions` and `ChunkSizes`; `batching.run_batched`; `mixing.mix_paintings`;
`attention_map.attention_map`; `temporal.TemporalSmoother`; `refine.refine`.
"""
