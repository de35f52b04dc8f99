"""What the counts amount to, in words."""

from stable_softmax.command_line.found import TOLERANCE, Found, gaps, probabilities_in_words
from stable_softmax.compare._tally import TROUBLE, Tally
from stable_softmax.reference.bounds import PRECISIONS

_TROUBLE = dict(zip(TROUBLE, ("with NaN", "with +inf", "of nothing but -inf"), strict=True))
_NOTES = {
    "left_out": "examples that --where leaves out",
    "tied": "examples where several classes are the most probable, of which the first counts",
}


def findings(tally: Tally) -> list[str]:
    """Say what is wrong, one item each."""
    pair = tally.pair
    said = [*gaps("logits", pair.logits.stored), *gaps("reference logits", pair.reference.stored)]
    for role, logits in (("logits", pair.logits), ("reference", pair.reference)):
        whose = "logits" if role == "logits" else "reference logits"
        count = tally.found[f"{role}_like_probabilities"].count
        said += probabilities_in_words(f"rows of the {whose}", count, tally.compared)
        for kind, words in _TROUBLE.items():
            if (found := tally.found[f"{role}_{kind}"]).count:
                said.append(f"rows of the {whose} {words}{logits.once_rounded()}: {_counted(tally, found)}")
    if (found := tally.found["infinite_kl"]).count:
        reason = "a class that is possible in the reference has probability 0 in the logits"
        counted = f"examples with an infinite KL: {_counted(tally, found)}"
        said.append(f"{counted}; {reason}{pair.logits.once_rounded()}")
    return said


def notes(tally: Tally) -> list[str]:
    """Say what is worth knowing, and not wrong."""
    said = [f"{words}: {tally.found[kind].count:,}" for kind, words in _NOTES.items() if tally.found[kind].count]
    dtypes = [logits.coarsest_dtype for logits in (tally.pair.reference, tally.pair.logits)]
    if PRECISIONS[dtypes[0]].significant_bits < PRECISIONS[dtypes[1]].significant_bits:
        said.append(f"the reference is in {dtypes[0]}, and the logits in {dtypes[1]}: the original model comes second")
    return [*said, *(gaps("mask", tally.pair.where) if tally.pair.where else [])]


def advice(tally: Tally) -> str:
    """Say in one sentence what to do."""
    off, compared = tally.usual_off, len(tally.kl)
    if findings(tally):
        return "Look first at the findings: means and percentiles leave out what is not finite."
    if not compared:
        return "There is nothing to compare."
    if off:
        return (
            "Compute KL with stable_softmax.softmax_kl_divergence: the usual form is off by more than "
            f"{TOLERANCE * 100:.0f} % in {off:,} of {compared:,} examples."
        )
    return "The usual form of KL serves for these logits."


def _counted(tally: Tally, found: Found[int]) -> str:
    """Return how many examples of a kind there are, and where the first of them are."""
    places = ", ".join(map(tally.pair.logits.place, found.first))
    first = "" if found.count == len(found.first) else "first "
    return f"{found.count:,} ({first}at {places})"
