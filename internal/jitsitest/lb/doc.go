// Package lb is a load balancer for tests: like the HAProxy in front of Jitsi
// shards it sends every HTTP request where its room lives, by a hash of ?room=
// and the tenant's path, and a stick table. It adds nothing to what passes
// through: X-Jitsi-Shard comes from the backends.
package lb
