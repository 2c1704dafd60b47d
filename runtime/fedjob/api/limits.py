"""The table of fixed limits: what a stranger can influence and no field of a resource bounds.

One line for each, with the reason for its value and what happens beyond it. Code takes `NAME.value`; `python -m fedjob.api.reference
limits > docs/limits.md` prints the page. A bound that a user may want to change is a field of a resource instead.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Limit:
    """One limit.

    scope: whose doing it bounds, a heading of the page. what: the thing that is counted, with per what. value: in `unit`.
    reason: why this value. beyond: what happens past it.
    """

    scope: str
    what: str
    value: int
    unit: str
    reason: str
    beyond: str


_SITE: Final = "What a site sends to its server"

LOGGED_VALUES: Final = Limit(
    _SITE,
    "scalars that a site logs, per round",
    10_000,
    "values",
    "they lie in the server's memory and in the report",
    "later ones are dropped and counted",
)
LOGGED_KEYS: Final = Limit(
    _SITE,
    "keys under which a site logs scalars, per job",
    256,
    "keys",
    "each is a curve in the report",
    "values of further keys are dropped and counted in the server's log",
)
SITE_LINES: Final = Limit(
    _SITE,
    "lines of the server's log about a site, or about all strangers, per ten seconds",
    50,
    "lines",
    "a site that starts, is refused and comes again has a handful; a flood would rotate away what others left there",
    "further lines are left out; a line says how many, once the ten seconds are over",
)
FLUSH_SECONDS: Final = Limit(
    _SITE,
    "from the job's end until a site hangs up",
    10,
    "seconds",
    "what scripts log before they end still arrives; one that goes on must not hold up the job",
    "the line ends; the site's log counts what was not sent",
)
OPEN_FETCHES: Final = Limit(
    _SITE,
    "downloads that a site has open at once",
    8,
    "streams",
    "a site needs one, and an old one takes a moment to end",
    "the call is refused as ResourceExhausted",
)
NAME: Final = Limit(
    _SITE,
    "name of a metric, or of a key that a script logs",
    128,
    "bytes of UTF-8",
    "it becomes a column, a chart and a label; the status of a job on a cluster takes 128 characters",
    "the rest is cut off, marked with …",
)
SENTENCE: Final = Limit(
    _SITE,
    "what the other side says in one message: why it skips, ends or refuses",
    2000,
    "bytes of UTF-8",
    "the last lines of a traceback",
    "the rest is cut off, marked with …",
)
METRIC_SERIES: Final = Limit(
    _SITE,
    "metric names per job in Prometheus",
    64,
    "names",
    "each is a time series for every site",
    "further names are left out and counted",
)
OPTIMIZER_BYTES: Final = Limit(
    _SITE,
    "optimizer state that the server has not sent out, per number of the model",
    16,
    "bytes",
    "Adam keeps two float32 numbers for each; AMSGrad with master weights four",
    "the answer is refused as TooLarge before it travels",
)
OFFER_HEADER_BYTES: Final = Limit(
    _SITE,
    "header of the file of an offered model",
    4 << 20,
    "bytes",
    "some 40,000 tensors; parsed, it takes twenty times its length in memory",
    "the offer is refused as Malformed",
)
_LOCAL: Final = "What `fedjob run` does on one machine"

WORKING_FILES: Final = Limit(
    _LOCAL,
    "files beside the job file that each site gets a copy of",
    500,
    "files",
    "code and small data, and not a folder of images, for each of a hundred sites",
    "the largest folders are links to the original; a line names them",
)
WORKING_BYTES: Final = Limit(
    _LOCAL,
    "size of these files, per site",
    16 * 1024 * 1024,
    "bytes",
    "a hundred sites take less than 2 GB",
    "the largest files and folders are links to the original; a line names them",
)
_AUTHOR: Final = "What a job asks"

CODE_BYTES: Final = Limit(
    _AUTHOR,
    "code in a job (spec.trainer.files), all files together",
    262_144,
    "bytes",
    "a copy lies in the namespace of each site, before the site's policy has judged it; jobsAtOnce of the hub bounds the jobs",
    "the job is refused; larger code belongs in the image",
)

_ANSWER: Final = "What an answer says beside its tensors"

ANSWER_TEXT: Final = Limit(
    _ANSWER,
    "metrics and meta of an answer, as JSON",
    64 << 10,
    "bytes",
    "they end in the journal, in history and in the report",
    "the answer is refused as Malformed",
)
ANSWER_DEPTH: Final = Limit(
    _ANSWER,
    "nesting of meta",
    32,
    "levels",
    "far above what people write, far below the interpreter's stack",
    "the answer is refused as Malformed",
)
ANSWER_METRICS: Final = Limit(
    _ANSWER,
    "metrics of an answer",
    64,
    "names",
    "each is a number of every site and round in history, status and report",
    "the first ones count; the others are left out, and the site and the server's log are told how many",
)
ANSWER_PARTS: Final = Limit(
    _ANSWER,
    "parts that an answer announces",
    8,
    "parts",
    "there are two: params and optimizer_params",
    "the call is refused",
)

_FILE: Final = "A tensor file, on the wire either way, or on disk"

FILE_HEADER: Final = Limit(
    _FILE,
    "its header: names, shapes and nesting",
    32 << 20,
    "bytes",
    "room for as many tensors as are allowed, with names of 100 bytes",
    "the file is refused before the header is read",
)
FILE_TENSORS: Final = Limit(
    _FILE,
    "tensors in it",
    1 << 17,
    "tensors",
    "each costs the reader a kilobyte and some microseconds; the largest published models have 92,000",
    "the file is refused before the header is parsed; a script is told before anything is sent",
)
TENSOR_NAME: Final = Limit(
    _FILE,
    "name of a tensor: the keys on the way to it, joined",
    8 << 10,
    "bytes of UTF-8",
    "names end in messages and logs",
    "the file is refused; a script is told before anything is sent",
)
TENSOR_DIMENSIONS: Final = Limit(
    _FILE, "dimensions of a tensor", 64, "dimensions", "numpy and torch know no more", "the file is refused"
)
TREE_DEPTH: Final = Limit(
    _FILE,
    "dicts, lists and tuples inside of each other",
    100,
    "levels",
    "far below the interpreter's stack, far above an optimizer's state",
    "the value is refused",
)
PART_BYTES: Final = Limit(
    _FILE,
    "size that a server announces to a site",
    1 << 42,
    "bytes",
    "what is announced costs memory before it comes, 16 bytes per MiB",
    "the site ends with RemoteProtocolError",
)

_CALLS: Final = "Calls and connections at a job's server"

CONNECTIONS: Final = Limit(
    _CALLS,
    "TCP connections at a server, of sites and of strangers",
    1024,
    "connections",
    "each costs some 30 KiB and a descriptor before it has shown a certificate",
    "a further one is closed; sites try again",
)
HANDSHAKE_SECONDS: Final = Limit(
    _CALLS,
    "from a TCP connection to the end of its TLS handshake",
    10,
    "seconds",
    "a silent connection must not keep its place",
    "it is closed",
)
IDLE_SECONDS: Final = Limit(
    _CALLS,
    "that a connection without a call stays open",
    60,
    "seconds",
    "a training process has a call open all the time",
    "it is closed",
)
OPEN_CALLS: Final = Limit(
    _CALLS,
    "calls open at once, per certificate and per connection",
    24,
    "calls",
    "a site needs its life line, an answer and downloads, twice while its certificate is renewed",
    "a further call is refused as Unavailable; the site tries again",
)
FIRST_MESSAGE_SECONDS: Final = Limit(
    _CALLS,
    "from the beginning of a call to its first message",
    10,
    "seconds",
    "the message follows at once",
    "the call ends as Unavailable",
)
STALL_SECONDS: Final = Limit(
    _CALLS,
    "without a chunk of an answer or a download under way",
    60,
    "seconds",
    "what is held for it is let go; the site goes on from there in another call",
    "the call ends as Unavailable",
)
CHUNK_FIELDS: Final = Limit(
    _CALLS,
    "fields of a chunk on the wire",
    16,
    "fields",
    "the format has 4; each costs time on the server's event loop",
    "the call ends as InvalidArgument",
)
SMALL_MESSAGE_BYTES: Final = Limit(
    _CALLS,
    "length of a message that is no chunk",
    512 << 10,
    "bytes",
    "a message of empty fields takes many times its length in memory",
    "the call ends as InvalidArgument",
)


_PEOPLE: Final = "What people are shown"

STATUS_METRICS: Final = Limit(
    _PEOPLE,
    "metrics of the job in status.json, which is written up to five times a second",
    32,
    "names",
    "the live view shows four; those that most sites sent come first",
    "further ones are counted (metricsLeftOut); history.jsonl has all",
)
STATUS_SITE_METRICS: Final = Limit(
    _PEOPLE,
    "metrics of each site in status.json",
    8,
    "names",
    "256 sites may have some; those of the job come first",
    "history.jsonl has all",
)
HUB_METRICS: Final = Limit(
    _PEOPLE,
    "metrics in the status of a FederatedJob",
    32,
    "names",
    "an object of the API server is small",
    "further ones are left out; the report has more",
)
HUB_REPORT: Final = Limit(
    _PEOPLE,
    "progress that a server reports to its hub, per report",
    262_144,
    "bytes",
    "256 sites with a sentence each, and some room",
    "the server cuts texts and names until it fits; the hub refuses more (413)",
)
SUMMARY_SITES: Final = Limit(
    _PEOPLE,
    "sites with a row in the table at the end of a run",
    32,
    "sites",
    "a screen or two; those that were refused, lost or missing come first",
    "further sites are counted; the report has all",
)
SUMMARY_VALUES: Final = Limit(
    _PEOPLE,
    "metrics and logged keys in the table at the end of a run",
    24,
    "names",
    "a screen; what most sites sent comes first, so that one site's many names displace none",
    "further names are counted; the report has more",
)
REPORT_NAMES: Final = Limit(
    _PEOPLE,
    "metrics, and as many logged keys, with a chart and a column in the report",
    32,
    "names",
    "each is a chart of every site and round: the page stays quick, and a few MiB",
    "further names are counted; history.jsonl and metrics.jsonl have all",
)


def table() -> tuple[Limit, ...]:
    """Every limit of this module, in the order of its definition."""
    return tuple(value for value in globals().values() if isinstance(value, Limit))
