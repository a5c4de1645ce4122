"""Recordings of people with known words, for the evaluation alone: no training hears them.

They come from two Debian packages, which have to be installed:

- asterisk-core-sounds-en-g722: telephone prompts by Allison Smith, 16 kHz, CC-BY-SA 3.0;
- pocketsphinx-testdata: an audiobook (LibriVox, public domain), and short commands by other people.

The package of the prompts has no texts: the words were worked out from file names and from what pocketsphinx hears.
Prompts that left a doubt are not here.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TEST_DATA = Path("/usr/share/pocketsphinx/test/data")
PACKAGES = {PROMPTS: "asterisk-core-sounds-en-g722", TEST_DATA: "pocketsphinx-testdata"}


@dataclass(frozen=True)
class Recording:
    person: str
    path: Path
    text: str


def _table(person: str, folder: Path, name: str, texts: dict[str, str]) -> list[Recording]:
    return [Recording(person, folder / name.format(key), text) for key, text in texts.items()]


RECORDINGS = [
    *_table("prompts", PROMPTS, "{}.g722", {
        "agent-alreadyon": "that agent is already logged on please enter your agent number followed by the pound key",
        "agent-incorrect": "login incorrect please enter your agent number followed by the pound key",
        "agent-user": "agent login please enter your agent number followed by the pound key",
        "cannot-complete-as-dialed": "your call cannot be completed as dialed",
        "conf-getconfno": "please enter your conference number followed by the pound key",
        "conf-invalid": "that is not a valid conference number please try again",
        "conf-noempty": "no empty conferences currently exist",
        "conf-onlyone": "there is currently one other participant in the conference",
        "conf-onlyperson": "you are currently the only person in this conference",
        "conf-waitforleader": "the conference will begin when the leader arrives",
        "confbridge-lock-no-join": "the conference is currently locked and cannot be joined",
        "dir-nomore": "there are no more compatible entries in the directory",
        "pbx-invalid": "i am sorry but that's not a valid extension please try again",
        "pls-hold-while-try": "please hold while we try to connect you",
        "priv-introsaved": "thank you please hold while i attempt to connect you with your party",
        "privacy-prompt": "please enter your phone number starting with the area code",
        "queue-holdtime": "the estimated hold time is currently",
        "queue-youarenext": "your call is now first in line and will be answered by the next available representative",
        "vm-intro": "please leave your message after the tone when done hang up or press the pound key",
        "vm-invalidpassword": "that is not a valid password please try again",
        "vm-mailboxfull": "sorry but the user's mailbox can't accept more messages",
        "vm-nobodyavail": "nobody is available to take your call at the moment",
        "vm-rec-busy": "after the tone say your busy message and then press the pound key",
        "vm-rec-name": "after the tone say your name and then press the pound key",
        "vm-rec-unv": "after the tone say your unavailable message and then press the pound key",
        "vm-tempgreetactive": "your temporary greeting is currently active",
        "vm-tocallback": "press two to call the person who sent this message",
        "something-terribly-wrong": "something is terribly wrong",
        "feature-not-avail-line": "that feature is not available on this line",
    }),
    *_table("audiobook", TEST_DATA / "librivox", "sense_and_sensibility_01_austen_64kb-{}.wav", {
        "0870": "and mister john dashwood had then leisure to consider how much there might be prudently in his power to"
        " do for them",
        "0880": "he was not an ill disposed young man",
        "0890": "unless to be rather cold hearted and rather selfish is to be ill disposed",
        "0920": "had he married a more amiable woman he might have been made still more respectable than he was",
        "0930": "he might even have been made amiable himself",
    }),
    *_table("cards", TEST_DATA / "cards", "{}.wav", {
        "001": "ten of clubs",
        "002": "four queen of clubs",
        "003": "seven of clubs",
        "004": "five five",
        "005": "eight of spades four of clubs seven of hearts",
    }),
    *_table("commands", TEST_DATA, "{}.raw", {
        "goforward": "go forward ten meters",
        "something": "go somewhere and do something",
    }),
]  # fmt: skip


def shortest(count: int) -> list[Recording]:
    """Return the `count` recordings of the shortest texts, or all that there are, in the order of `RECORDINGS`."""
    chosen = sorted(range(len(RECORDINGS)), key=lambda i: len(RECORDINGS[i].text))[:count]
    return [RECORDINGS[i] for i in sorted(chosen)]


def sound(recording: Recording) -> np.ndarray:
    """Return the samples, float32 (n,) at 16 kHz; FileNotFoundError names the package that has the file."""
    path = recording.path
    if not path.is_file():
        package = next(name for folder, name in PACKAGES.items() if folder in path.parents)
        raise FileNotFoundError(f"[training] {path} is missing (Debian: apt install {package})")
    if path.suffix == ".g722":
        command = [
            "ffmpeg",
            "-loglevel",
            "error",
            "-f",
            "g722",
            "-i",
            str(path),
            "-ar",
            str(RATE),
            "-f",
            "s16le",
            "-",
        ]
        try:
            data = subprocess.run(command, capture_output=True, check=True).stdout
        except FileNotFoundError:
            raise RuntimeError("[training] ffmpeg is missing (Debian: apt install ffmpeg)") from None
        return np.frombuffer(data, np.int16).astype(np.float32) / 32768
    if path.suffix == ".raw":
        return np.fromfile(path, np.int16).astype(np.float32) / 32768
    samples, rate = soundfile.read(path, dtype="float32")
    if rate != RATE or samples.ndim != 1:
        raise ValueError(f"[training] {path}: {rate} Hz and {samples.ndim} dimensions, not mono at {RATE} Hz")
    return samples
