# Ends the loop that deploy.sh decommission left behind, which goes on for ever when the node is taken back, and removes
# the outputs that were not fetched. Argument: install directory.
end_runs "$1" decommission
rm -f "$1/kwdb-scale.join.out" "$1/kwdb-scale.decommission.out"
exit 0
