"""Sentences about what is damaged in a clip: each once, and of each kind not without end."""

from collections import Counter

from mambair_cli.system.wording import show_count

_MOST_OF_A_KIND = 20


class DamageNotes:
    """What is damaged in one clip.

    Args:
        name: Name of the clip in messages.

    Attributes:
        sentences: The sentences, which grow; the one that counts those left out is written anew.
    """

    def __init__(self, name: str) -> None:
        self.sentences: list[str] = []
        self._name = name
        self._noted: set[str] = set()  # also those that are left out: a clip is read more than once
        self._counts: Counter[str] = Counter()
        self._rests: dict[str, int] = {}  # by kind, where the sentence is that counts

    def add(self, sentence: str, kind: str = "") -> None:
        """Note a sentence.

        Args:
            sentence: The sentence.
            kind: What it is one of, in the plural, where there may be many: "broken frames".
        """
        if sentence in self._noted:
            return
        self._noted.add(sentence)
        self._counts[kind] += bool(kind)
        more = self._counts[kind] - _MOST_OF_A_KIND
        if more <= 0:
            self.sentences.append(sentence)
            return
        rest = f"{show_count(more, 'more line')} on {kind} of {self._name} left out"
        if kind in self._rests:
            self.sentences[self._rests[kind]] = rest
        else:
            self._rests[kind] = len(self.sentences)
            self.sentences.append(rest)
