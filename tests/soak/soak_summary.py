"""The summary of a run on paper: a table, and how to see the first violations again."""

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from soak_oracle import LARGEST_ORACLE_SHARE, QUANTITIES

CAPTION = "Largest errors as shares of the accuracy contract's bound; oracle: the reference's own, in sampled rows."


def print_summary(records_by_pair):
    """Print the table, as wide as it needs to be: in a pipe, rich assumes 80 columns, and cuts off the rest."""
    Console(width=110).print(_table(records_by_pair))


def _table(records_by_pair):
    """Lay out one row for each pair of backend and dtype."""
    columns = [Column(name, justify="right") for name in ("rows", *QUANTITIES, "oracle", "violations")]
    table = Table("backend", "dtype", *columns, box=SIMPLE, caption=CAPTION)
    for (backend, dtype), records in records_by_pair.items():
        worst = [f"{max(record['shares'][name] for record in records):.3f}" for name in QUANTITIES]
        oracle = f"{largest_oracle_share(records):.1e}"
        table.add_row(backend, dtype, f"{_total(records, 'rows'):,}", *worst, oracle, _violations(records))
    return table


def is_clean(records):
    """Return whether every row kept the contract, and the oracle was good enough to tell."""
    return not _total(records, "violations") and largest_oracle_share(records) <= LARGEST_ORACLE_SHARE


def largest_oracle_share(records):
    """Return the oracle's largest error in all batches."""
    return max(record["oracle"] for record in records)


def first_violation(records):
    """Return the first violation with its batch's index, or None."""
    for index, record in enumerate(records):
        if record["first"]:
            return {"batch": index, "classes": record["classes"], **record["first"]}
    return None


def _violations(records):
    count = _total(records, "violations")
    return Text(f"{count:,}", style="bold red" if count else "green")


def _total(records, name):
    return sum(record[name] for record in records)
