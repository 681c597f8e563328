"""What a file of ditto says about how it was made: content credentials (C2PA), signed, and a visible label.

Every video and picture of a generated face that ditto writes carries content credentials, unless the caller gives
`provenance=None`. `publish` signs a finished file and gives it its name; `verify` reads the credentials of any file.
"""

from ditto.provenance.credentials import Credentials
from ditto.provenance.label import DISCLOSURE, Label
from ditto.provenance.marking import Ingredient, Provenance, publish
from ditto.provenance.verification import Verdict, verify

__all__ = ["DISCLOSURE", "Credentials", "Ingredient", "Label", "Provenance", "Verdict", "publish", "verify"]
