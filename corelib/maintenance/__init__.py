"""What looks after results: verification, removal of unneeded runs, exports, provision of assets."""
