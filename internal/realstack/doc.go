// Package realstack tests the gateway against the programs it meets in the
// field: `brewline serve` as a process of its own, two Prosodys or more behind
// HAProxy with deploy/haproxy.cfg, calls made by SIPp and baresip. Jicofo and
// the videobridges alone are simulated, and stand behind the real Prosody.
package realstack
