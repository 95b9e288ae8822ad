"""Files to tensors and back: `images` for pictures, `image_files` to find them in folders and by glob patterns,
`picture_sources` for training pictures in folders, lists and tar files, `video_reader` and `video_writer` for video,
and `files.atomic_path` for output files that are complete or absent.
"""
