"""The network: VGG encoder, attention, fusion, decoder, and the config that rebuilds a model.

For other packages: `ModelConfig`, `StyleTransferModel`, its parts `VGGEncoder`, `MultiLevelFusion` and `Decoder`, and
the data they exchange: `Features`, `StyleKV`, `FusedFeatures`.
"""
