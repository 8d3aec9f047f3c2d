"""The small page at `/`: what serves, how fresh it is, how it is doing, and a form made from the contract.

Its three files hold no data and need no key. What they show comes from `/page/state` (`state.State`) and
`/page/contract` (`form.Form`), which say no more than `/metrics`, `/lineage` and the contract do.
"""
