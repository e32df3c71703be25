# A router and a host behind it; $1 and $2 are processes in their namespaces. This one is the laptop's.
in_router() { nsenter --net --target "$router" "$@"; }
in_host() { nsenter --net --target "$host" "$@"; }
router=$1 host=$2

ip link set lo up
ip link add lan type veth peer name lan-r
ip link set lan-r netns "$router"
ip link add other type veth peer name other-end
ip link set other-end up
ip addr add 10.79.0.1/24 dev other
ip link set other up
ip addr add 10.77.1.2/24 dev lan
ip addr add fd77:1::2/64 dev lan nodad
ip link set lan up

in_router sh -euc '
    ip link set lo up
    echo 1 >/proc/sys/net/ipv4/ip_forward
    echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
    # Every error is wanted, and soon. (No icmp_ratelimit=0: it starves the limit on "no route" errors.)
    echo 0 >/proc/sys/net/ipv4/icmp_ratemask
    echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
    ip addr add 10.77.1.1/24 dev lan-r
    ip addr add fd77:1::1/64 dev lan-r nodad
    ip link set lan-r up
    ip link add far type veth peer name far-h
    ip addr add 10.77.2.1/24 dev far
    ip addr add fd77:2::1/64 dev far nodad
    ip link set far-h netns "$1"
    ip link set far up
    # Addresses that nobody has are given up soon.
    for family in ipv4 ipv6; do
        echo 10 >/proc/sys/net/$family/neigh/far/mcast_solicit
        echo 50 >/proc/sys/net/$family/neigh/far/retrans_time_ms
    done
' router "$host"

in_host sh -euc '
    ip link set lo up
    echo 0 >/proc/sys/net/ipv4/icmp_ratemask
    echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
    ip addr add 10.77.2.2/24 dev far-h
    ip addr add fd77:2::2/64 dev far-h nodad
    ip link set far-h up
    ip route add default via 10.77.2.1
    ip -6 route add default via fd77:2::1
'

ip route add default via 10.77.1.1
ip -6 route add default via fd77:1::1
