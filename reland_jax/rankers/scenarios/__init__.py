"""Rankers of several scenarios (pages, tabs, countries) at once, and meta layers of what is known of them.

The known scenarios are the codes 2, 3, ... of one categorical feature; a row of another one, which training
does not have, is ranked by the mean of what belongs to each. A backbone computes with stacked parameters of
all scenarios and picks by the row's shares, so shapes never depend on which scenarios a batch has.
"""
