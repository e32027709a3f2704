"""Opening what can be watched: video files, cameras and streams, folders of pictures, arrays.

Knows how to turn each into a `Source` of observations: RGB frame, world time, frame number, name. A file's world time
is its start plus the presentation time of the frame, so that a frame has the same time whenever it is read. Does not
know what is interesting in a frame, nor who reads it at what speed.

OpenCV decodes (its FFmpeg backend). Two of its habits are kept away from callers: it opens a JPEG as a video of one
frame, and seeking by frame number can land beside it (`VideoFile.seek` proves the place or decodes its way there).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import cv2
import numpy as np

from ..clock import Clock, SystemClock
from ..errors import BadInput
from ..records import Image, Observation, Trust

log = logging.getLogger("perdure")

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_LOST_SHARE = 0.01  # a container's frame count is exact for MP4, an estimate for others: less than this is no damage


class Source:
    """Something that can be watched, frame by frame. Iterating goes on where the last read or `seek` left off.

    Attributes:
        name: what observations carry as their source.
        live: True if frames come whether or not anybody reads them (a camera), so that waiting loses them.
        fps: nominal frames per second; None if unknown.
        size: (width, height) in pixels; None if not known before the first frame.
        frame_count: frames according to the container or the folder; None if unknown or endless.
        truncated: True once fewer frames came than the container promised, or a camera went silent.
    """

    name: str
    live = False
    fps: float | None = None
    size: tuple[int, int] | None = None
    frame_count: int | None = None
    truncated = False

    @property
    def sha256(self) -> str | None:
        """Hash of the file's bytes, hexadecimal; None for what is not one file."""
        return None

    def __iter__(self) -> Iterator[Observation]:
        raise NotImplementedError

    def seek(self, index: int, anchor: tuple[int, datetime] | None = None) -> None:
        """Make the next frame read the one with this number.

        Args:
            index: frame number from 0; beyond the end means that nothing is left.
            anchor: number and world time of a frame at or after ``index`` that was read before. It lets a file skip
                decoding: the container's own seek is used if it leads to exactly this frame.

        Raises:
            BadInput: the source cannot go there (a camera has no past).
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release the file or device; reading after it raises BadInput."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class VideoFile(Source):
    """A video file. Frame times are ``start`` + presentation time; without ``start``, the file's modification time."""

    def __init__(self, path: Path, start: datetime | None = None, name: str | None = None) -> None:
        self.path = path
        kind = _check_file(path)
        self.name = name or path.name
        self.start = start or datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
        self._capture: Any = _open_capture(str(path.resolve()))
        self._sha256: str | None = None
        self._index = 0  # number of the next frame
        if not self._capture.isOpened():
            raise BadInput(_unreadable(path))
        self.fps = _positive(self._capture.get(cv2.CAP_PROP_FPS))
        count = _positive(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count = None if count is None else round(count)
        self._step = timedelta(seconds=1 / (self.fps or 25.0))
        self._last = self.start - self._step
        first, second = self._decode(), self._decode()
        if first is None:
            raise BadInput(f"{path} has a video header but not one frame in it can be decoded; record or copy it again")
        if second is None and kind:
            raise BadInput(
                f"{path} is a picture ({kind}), expected a video; put pictures into a folder and watch the folder, "
                "or pass arrays"
            )
        self.size = (cast(Image, first.frame).shape[1], cast(Image, first.frame).shape[0])
        self._ahead = [seen for seen in (first, second) if seen is not None]

    @property
    def sha256(self) -> str:
        if self._sha256 is None:
            with self.path.open("rb") as file:
                self._sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return self._sha256

    def __iter__(self) -> Iterator[Observation]:
        while self._ahead:
            yield self._ahead.pop(0)
        while (seen := self._decode()) is not None:
            yield seen
        self._check_complete()

    def seek(self, index: int, anchor: tuple[int, datetime] | None = None) -> None:
        if index < 0:
            raise BadInput(f"expected a frame number from 0, got {index}")
        self._ahead.clear()
        if anchor is not None and index > 0 and self._jump(index) and self._leads_to(anchor):
            self._jump(index)
            return
        self._rewind()
        while self._index < index and self._grab():
            pass

    def close(self) -> None:
        self._capture.release()
        self._ahead.clear()

    def _decode(self) -> Observation | None:
        time = self._grab()
        if time is None:
            return None
        ok, frame = self._capture.retrieve()
        if not ok:
            return None
        image = cast(Image, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        return Observation(time=time, source=self.name, trust=Trust.SEEN, frame=image, index=self._index - 1)

    def _grab(self) -> datetime | None:
        """Step to the next frame without converting it; its world time, or None at the end."""
        if not self._capture.isOpened():
            raise BadInput(f"{self.path} was closed; open it again to go on reading")
        if not self._capture.grab():
            return None
        time = self.start + timedelta(milliseconds=self._capture.get(cv2.CAP_PROP_POS_MSEC))
        if time <= self._last:  # no or broken presentation times: count on from the last good one
            time = self._last + self._step
        self._last = time
        self._index += 1
        return time

    def _rewind(self) -> None:
        self._capture.release()
        self._capture = _open_capture(str(self.path.resolve()))
        self._index, self._last = 0, self.start - self._step

    def _jump(self, index: int) -> bool:
        """The container's own seek, which may land beside the frame."""
        if not self._capture.set(cv2.CAP_PROP_POS_FRAMES, float(index)):
            return False
        self._index, self._last = index, datetime.min.replace(tzinfo=UTC)
        return True

    def _leads_to(self, anchor: tuple[int, datetime]) -> bool:
        """Whether reading on from a jump meets the anchor frame at its number and time."""
        number, expected = anchor
        while self._index <= number:
            time = self._grab()
            if time is None or (time >= expected and self._index <= number):
                return False
            if self._index == number + 1:
                return abs(time - expected) < timedelta(milliseconds=1)
        return False

    def _check_complete(self) -> None:
        if self.frame_count is None:
            return
        lost = self.frame_count - self._index
        if lost > max(2, _LOST_SHARE * self.frame_count) and not self.truncated:
            self.truncated = True
            log.warning(
                "%s breaks off: %d of %d frames could be decoded; all of them were used", self.path, self._index,
                self.frame_count,
            )  # fmt: skip


class Camera(Source):
    """A camera by number or a stream by URL. Frames are stamped with the clock when they arrive."""

    live = True

    def __init__(self, device: int | str, name: str | None = None, clock: Clock | None = None) -> None:
        self.name = name or (f"camera:{device}" if isinstance(device, int) else device)
        self._clock = clock or SystemClock()
        self._index = 0
        quiet_ffmpeg()
        self._capture: Any = cv2.VideoCapture(device)
        ok, frame = self._capture.read() if self._capture.isOpened() else (False, None)
        if not ok or frame is None:
            self._capture.release()
            raise BadInput(
                f"expected a camera or stream that delivers frames, got nothing from {self.name}; check that it is "
                "connected, not used by another program, and that the number or address is right"
            )
        self._first: Image | None = frame
        self.size = (frame.shape[1], frame.shape[0])
        self.fps = _positive(self._capture.get(cv2.CAP_PROP_FPS))

    def __iter__(self) -> Iterator[Observation]:
        while True:
            if not self._capture.isOpened():
                raise BadInput(f"{self.name} was closed; open it again to go on watching")
            ok, frame = (True, self._first) if self._first is not None else self._capture.read()
            self._first = None
            if not ok:
                self.truncated = True
                log.warning("%s went silent after %d frames", self.name, self._index)
                return
            image = cast(Image, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            self._index += 1
            yield Observation(self._clock.now(), self.name, Trust.SEEN, frame=image, index=self._index - 1)

    def seek(self, index: int, anchor: tuple[int, datetime] | None = None) -> None:
        raise BadInput(f"{self.name} is live: it cannot go back to frame {index}; watch on from now")

    def close(self) -> None:
        self._capture.release()


class Pictures(Source):
    """Pictures in memory or in a folder, with times of their own or evenly spaced.

    Args:
        images: uint8 arrays [height, width, 3] in RGB, or pairs (aware time, array), or paths of picture files.
        start: time of picture 0 for those without a time.
        fps: pictures per second for those without a time.
        name: what observations carry as their source.
    """

    def __init__(
        self,
        images: Iterable[Image | tuple[datetime, Image] | Path],
        start: datetime,
        fps: float = 25.0,
        name: str = "pictures",
    ) -> None:
        if not fps > 0:
            raise BadInput(f"expected pictures per second above 0, got fps={fps}")
        self.name, self.start, self.fps = name, start, fps
        self._images = images
        self._iterator = iter(images)
        self._index = 0
        self.frame_count = len(images) if isinstance(images, Sequence | np.ndarray) else None

    def __iter__(self) -> Iterator[Observation]:
        for item in self._iterator:
            index, self._index = self._index, self._index + 1
            time, image = self._read(item, index)
            yield Observation(time, self.name, Trust.SEEN, frame=image, index=index)

    def seek(self, index: int, anchor: tuple[int, datetime] | None = None) -> None:
        if index < self._index:
            if iter(self._images) is self._images:
                raise BadInput(f"{self.name} can be read once only: cannot go back from {self._index} to {index}")
            self._iterator, self._index = iter(self._images), 0
        skipped = sum(1 for _ in itertools.islice(self._iterator, index - self._index))
        self._index += skipped

    def _read(self, item: Image | tuple[datetime, Image] | Path, index: int) -> tuple[datetime, Image]:
        time = self.start + timedelta(seconds=index / cast(float, self.fps))
        if isinstance(item, Path):
            bgr = cv2.imread(str(item), cv2.IMREAD_COLOR)
            if bgr is None:
                raise BadInput(f"{item} cannot be read as a picture; remove it from the folder or replace it")
            return time, cast(Image, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
        if isinstance(item, tuple):
            time, item = item
            if time.tzinfo is None:
                raise BadInput(f"picture {index} of {self.name} has the naive time {time}; add tzinfo")
        if not (isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim == 3 and item.shape[2] == 3):
            got = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
            raise BadInput(f"picture {index} of {self.name}: expected a uint8 array [height, width, 3], got {got}")
        return time, item


def open_source(
    spec: str | Path | int | Iterable[Image | tuple[datetime, Image]],
    *,
    start: datetime | None = None,
    fps: float | None = None,
    name: str | None = None,
    clock: Clock | None = None,
) -> Source:
    """Open whatever can be watched.

    Args:
        spec: path of a video file; folder of pictures (in the order of their names); ``0`` or ``camera:0``; URL of a
            stream (``rtsp://...``); uint8 arrays [height, width, 3] in RGB, or pairs (aware time, array).
        start: world time of the first frame, aware. Default: a file's or folder's modification time, now for arrays.
        fps: pictures per second, for arrays and folders (default 25).
        name: the source's name in observations. Default: file name, ``camera:0``, URL or ``pictures``.
        clock: stamps the frames of a camera. Default: this machine's.

    Returns:
        a `Source`, opened and proven to deliver a frame if it is a file or a camera.

    Raises:
        BadInput: it does not exist, is empty, is a picture, is no video, or delivers no frame.
    """
    if start is not None and start.tzinfo is None:
        raise BadInput(f"expected an aware datetime as start, got the naive {start!r}; add tzinfo")
    if isinstance(spec, int):
        return Camera(spec, name, clock)
    if isinstance(spec, str):
        device = spec.removeprefix("camera:")
        if device.isdecimal():
            return Camera(int(device), name, clock)
        if "://" in spec:
            return Camera(spec, name, clock)
        spec = Path(spec)
    if isinstance(spec, Path):
        if not spec.is_dir():
            return VideoFile(spec, start, name)
        return _folder(spec, start, fps or 25.0, name)
    return Pictures(spec, start or (clock or SystemClock()).now(), fps or 25.0, name or "pictures")


def limit_threads(count: int) -> None:
    """Give OpenCV this many threads in the whole process: its share of the one thread budget.

    Raises:
        BadInput: ``count`` is below 1.
    """
    if count < 1:
        raise BadInput(f"expected at least 1 thread, got {count}")
    cv2.setNumThreads(count)


@functools.cache
def quiet_ffmpeg() -> None:
    """Keep OpenCV and its FFmpeg from writing to stderr; what they would say there reaches callers as errors.

    FFmpeg's level is set when OpenCV first opens a file, so that happens first, with a name that cannot exist. The
    FFmpeg in the wheel is reached by its file; with another build of OpenCV its messages stay.
    """
    logging_ = cv2.utils.logging
    logging_.setLogLevel(min(logging_.getLogLevel(), logging_.LOG_LEVEL_FATAL))
    cv2.VideoCapture("/dev/null/nothing", cv2.CAP_FFMPEG).release()
    for library in (Path(cv2.__file__).parent.parent / "opencv_python.libs").glob("libavutil-*.so*"):
        ctypes.CDLL(str(library)).av_log_set_level(-8)  # AV_LOG_QUIET


def _open_capture(path: str) -> Any:
    quiet_ffmpeg()
    return cv2.VideoCapture(path, cv2.CAP_FFMPEG)


def _folder(path: Path, start: datetime | None, fps: float, name: str | None) -> Source:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
    if not files:
        raise BadInput(f"{path} is a directory without pictures ({', '.join(PICTURES)}); give a video file")
    start = start or datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
    return Pictures(files, start, fps, name or path.name)


def _check_file(path: Path) -> str:
    """Check that a file can be read; the name of its picture format, or an empty string."""
    if not path.exists():
        raise BadInput(f"no such video: {path}; check the path (now in {Path.cwd()})")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty (0 bytes), expected a video; copy or record it again")
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return "WebP"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


def _unreadable(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
    if head[4:8] == b"ftyp" or head[4:8] in (b"moov", b"mdat", b"free"):
        return (
            f"{path} is an MP4 or MOV file without a readable index: its end is missing or damaged, or it has no "
            "picture track; copy it again, or repair it with a tool such as untrunc"
        )
    text = all(byte in b"\t\n\r\f" or byte >= 32 for byte in head)
    what = "text" if text else f"bytes that begin with {head[:8].hex(' ')}"
    return f"{path} is no video that OpenCV can decode, it holds {what}; expected MP4, MOV, MKV, WebM, AVI or the like"


def _positive(value: float) -> float | None:
    """What OpenCV answers for unknown is 0, negative or not a number; None says it."""
    return value if math.isfinite(value) and value > 0 else None
