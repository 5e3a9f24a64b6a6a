"""The models it says are on this computer: what their cards say, and the findings they can draw."""

from __future__ import annotations

EMBEDDED = "progidiff-abdomen-small"
MODELS = {
    EMBEDDED: (
        "Draws proposals of thirteen abdominal organs on CT from a text prompt. Research use only; not a "
        "medical device.",
        "",
    ),
    "textdiffseg-abdomen-small": (
        "Draws proposals of abdominal organs and of findings in them from a text prompt. Research use only; "
        "not a medical device.",
        "liver_tumor pancreas_tumor",
    ),
}
