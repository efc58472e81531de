uname -srm
cat /proc/loadavg
df -kP /
