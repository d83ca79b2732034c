"""`fzgw demo`: the whole of fzgw at work on one machine, in namespaces that nobody else sees.

The walk (`run.py`): `privilege.py` sees to it that the process may make network namespaces, with root or in a user
namespace of its own. `laboratory.py` makes two clients, a gateway and a server after `plan.py` and lays the cables.
`gateway.py` starts the real gateway on the configuration of `configuration.py`; `clients.py` gives each client a
tunnel; `server.py` answers. `traffic.py` makes the traffic and tells what the records must say of it. Meanwhile
`records.py` reads what the gateway writes and `view.py` shows it. At the end `ledgers.py` takes the books, and
`checks.py` compares.

Nothing has to be removed that could be forgotten: namespaces are held by file descriptors (`namespaces.py`) and all
files are in one temporary directory.
"""
