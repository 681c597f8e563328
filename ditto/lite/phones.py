"""The phone inventory the encoder speaks: ARPAbet, 39 phones and silence, and their 14 viseme classes."""

from __future__ import annotations

PHONES: tuple[str, ...] = (
    "SIL", "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH",
    "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
PHONE_INDEX: dict[str, int] = {phone: i for i, phone in enumerate(PHONES)}
SILENCE: int = PHONE_INDEX["SIL"]
BILABIALS: list[int] = [PHONE_INDEX[phone] for phone in ("P", "B", "M")]
LABIODENTALS: list[int] = [PHONE_INDEX[phone] for phone in ("F", "V")]

VISEMES: dict[str, tuple[str, ...]] = {
    "SIL": ("SIL",),
    "PBM": ("P", "B", "M"),
    "FV": ("F", "V"),
    "TH": ("TH", "DH"),
    "TDNL": ("T", "D", "N", "L"),
    "SZ": ("S", "Z"),
    "CHSH": ("CH", "JH", "SH", "ZH"),
    "KG": ("K", "G", "NG", "HH"),
    "R": ("R", "ER"),
    "WU": ("W", "UW", "UH"),
    "O": ("AO", "OW", "OY"),
    "A": ("AA", "AH", "AY", "AW"),
    "E": ("EH", "AE", "EY"),
    "I": ("IY", "IH", "Y"),
}
VISEME_NAMES: tuple[str, ...] = tuple(VISEMES)
PHONE_TO_VISEME: tuple[int, ...] = tuple(
    next(i for i, phones in enumerate(VISEMES.values()) if phone in phones) for phone in PHONES
)
