"""Writes invented support tickets with the ratings of two people: a stand-in for a company's own spreadsheet (docs/own_data.md).

    python examples/make_tickets.py tickets.csv [TICKETS]

One row per rating: ticket, question, reply, rater, comment, score. Each ticket has four replies. A reply earns one point beyond the first
for each of: it apologizes, names the cause, gives a step to take, says when. The raters mostly agree; Ben is a point stricter in one of
five replies, and leaves the comment blank in one of three.
"""

import csv
import itertools
import random
import sys

PRODUCTS = ("router", "printer", "coffee machine", "headset", "phone", "scanner", "lamp", "keyboard", "camera", "heater")
PROBLEMS = {
    "does not turn on": ("the power supply is loose", "Please press the plug in until it clicks"),
    "arrived with a scratch": ("the box was damaged on the way", "Please send us a photo of the label"),
    "loses the connection": ("the firmware is out of date", "Please install version 2.4 from the menu"),
    "makes a loud noise": ("a fan bracket came off", "Please stop using it and note the serial number"),
    "was charged twice": ("the payment was sent again by mistake", "Please forward the second receipt to billing"),
    "came in the wrong color": ("two orders were swapped in the warehouse", "Please keep the parcel closed and print the return label"),
}
OPENINGS = (
    "My new {product} {problem}. What now?",
    "Hello, the {product} that I ordered {problem}.",
    "The {product} {problem}, and I need it today.",
)
APOLOGIES = ("We are sorry about that.", "I apologize for the trouble.", "Sorry for the inconvenience.")
TIMES = ("We answer within two days.", "A replacement leaves tomorrow.", "The refund takes five days.")
FILLERS = ("Thank you for your message.", "Your ticket was received.", "We value all customers.", "Have a nice day.")
# What a reply is judged by: what a comment says if it is there, and if it is not.
CHECKS = (("apologizes", "no apology"), ("names the cause", "no cause"), ("gives a step", "no step"), ("says when", "no time"))


def reply(rng: random.Random, cause: str, step: str, present: tuple[bool, ...]) -> str:
    """A reply with the parts that are present, between sentences that say nothing."""
    parts = (rng.choice(APOLOGIES), f"The reason is that {cause}.", f"{step}.", rng.choice(TIMES))
    kept = [part for part, is_there in zip(parts, present, strict=True) if is_there]
    return " ".join([rng.choice(FILLERS), *kept])


def comment(present: tuple[bool, ...]) -> str:
    """What a rater writes: each check in turn."""
    return ", ".join(good if is_there else bad for (good, bad), is_there in zip(CHECKS, present, strict=True)).capitalize() + "."


def rows(n_tickets: int, seed: int = 0) -> list[dict[str, object]]:
    """The ratings of four replies to each ticket by Ann and Ben."""
    rng = random.Random(seed)
    every = list(itertools.product((False, True), repeat=len(CHECKS)))
    found: list[dict[str, object]] = []
    for number in range(n_tickets):
        problem, (cause, step) = rng.choice(list(PROBLEMS.items()))
        question = rng.choice(OPENINGS).format(product=rng.choice(PRODUCTS), problem=problem)
        for present in rng.sample(every, 4):
            about = {"ticket": f"T{number + 1:03d}", "question": question, "reply": reply(rng, cause, step, present)}
            score = 1 + sum(present)
            strict = max(1, score - (rng.random() < 0.2))
            found.append({**about, "rater": "Ann", "comment": comment(present), "score": score})
            found.append({**about, "rater": "Ben", "comment": comment(present) if rng.random() < 2 / 3 else "", "score": strict})
    return found


def main() -> None:
    """Writes the table to the path on the command line."""
    table = rows(int(sys.argv[2]) if len(sys.argv) > 2 else 32)
    with open(sys.argv[1], "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main()
