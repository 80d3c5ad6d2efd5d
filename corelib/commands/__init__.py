"""`python -m corelib`: preflight, plan, why, verify, clean, assets, jobs, export, ship."""
