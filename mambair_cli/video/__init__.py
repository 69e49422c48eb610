"""Read clips into frames and write frames to clips, by FFmpeg; knows no network."""

from mambair_cli.video.clip import Clip
from mambair_cli.video.codecs import CODECS, CONTAINERS, VideoOptions, check_codec, choose_options
from mambair_cli.video.facts import ClipFacts, MasteringDisplay, StreamFacts
from mambair_cli.video.frames import FrameMark, RawInput, VideoFrame
from mambair_cli.video.join import join_segments
from mambair_cli.video.losses import explain_times, name_losses
from mambair_cli.video.numbered import NumberedFrames, find_images, is_pattern, name_frame, write_frame
from mambair_cli.video.opening import open_clip, probe_clip
from mambair_cli.video.segments import SegmentWriter, convert_frame
from mambair_cli.video.streams import Yuv4MpegWriter, write_raw
from mambair_cli.video.upright import UprightFrames

__all__ = [
    "CODECS",
    "CONTAINERS",
    "Clip",
    "ClipFacts",
    "FrameMark",
    "MasteringDisplay",
    "NumberedFrames",
    "RawInput",
    "SegmentWriter",
    "StreamFacts",
    "UprightFrames",
    "VideoFrame",
    "VideoOptions",
    "Yuv4MpegWriter",
    "check_codec",
    "choose_options",
    "convert_frame",
    "explain_times",
    "find_images",
    "is_pattern",
    "join_segments",
    "name_frame",
    "name_losses",
    "open_clip",
    "probe_clip",
    "write_frame",
    "write_raw",
]
