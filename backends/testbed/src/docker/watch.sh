# Runs a Docker engine in the directory $1, where its script is, and removes what is left behind it.
#
# The engine has namespaces of its own: its bridges and firewall rules, its mounts and its containers end with it. It
# ends when the standard input does, which the test holds open, so it does not outlive the test however that ends.
name=${1##*/}
unshare --net --mount --pid --fork --kill-child --mount-proc sh "$1/engine.sh" "$1"
status=$?
# There is a hierarchy of control groups, or one for each controller. None has a process left.
for group in "/sys/fs/cgroup/$name" /sys/fs/cgroup/*/"$name"; do
  [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} +
done
# Whoever wants to know why an engine ended by itself still finds its log.
[ "$status" -ne 0 ] || rm -rf -- "$1"
exit "$status"
