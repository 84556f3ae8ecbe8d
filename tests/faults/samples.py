"""The environments of the original's sample data: the sizes that a site really has."""

from typing import NamedTuple

MIB = 1 << 20
GIB = 1 << 30


class Sample(NamedTuple):
    """Bytes of the image, the first sector of its second partition, and that one's MiB."""

    name: str
    image_bytes: int
    root_start_sector: int
    root_mib: int


SAMPLES = (
    Sample("raspbian_buster_32bit", 1845493760, 532480, 1500),
    Sample("raspbian_cloud9", 2478833664, 532480, 2104),
    Sample("raspbian_ttyd", 2164260864, 532480, 1804),
    Sample("raspbian_buster_64bit", 3711959040, 532480, 3280),
    Sample("ubuntu_20.04_32bit", 2917192704, 526336, 2525),
    Sample("ubuntu_20.04_64bit", 3202802688, 526336, 2797),
    Sample("tiny_core", 180195328, 195693, 76),
)
TOO_LARGE_FOR_2_GIB = {
    "raspbian_cloud9", "raspbian_buster_64bit", "ubuntu_20.04_32bit", "ubuntu_20.04_64bit",
}  # fmt: skip
