"""The address of a guest, as the DHCP server's file tells it."""

from __future__ import annotations

import time
from pathlib import Path

from claw_runtime_tart.address import leased

MAC = "7e:0c:02:4a:78:03"


def entry(address: str, lease: int, card: str = "1,7e:c:2:4a:78:3") -> str:
    return f"{{\n\tname=x\n\tip_address={address}\n\thw_address={card}\n\tlease=0x{lease:x}\n}}\n"


def test_the_newest_leases_of_a_card_are_found(tmp_path: Path) -> None:
    path, now = tmp_path / "leases", int(time.time())
    assert leased(path, MAC) == []
    path.write_text(
        entry("192.168.64.2", now + 500)
        + entry("192.168.64.3", now + 900, "1,7e:c:2:4a:78:4")
        + entry("192.168.64.4", now - 5)
        + entry("192.168.64.5", now + 900, "ff,f1:f5:dd:7f:0:2")
        + "{\n\tip_address=nonsense\n\thw_address=\n\tlease=x\n}\n{ torn\n\tip_address=1.2.3.4"
    )
    assert leased(path, MAC) == ["192.168.64.2"]
    path.write_text(entry("192.168.64.9", now + 500) + path.read_text())
    assert leased(path, MAC) == ["192.168.64.9", "192.168.64.2"]
    path.write_text(entry("192.168.64.1", now + 501) + path.read_text())
    assert leased(path, MAC) == ["192.168.64.1"]
