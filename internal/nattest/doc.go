// Package nattest puts a phone behind NAT, with loss: in user space, where
// tests run anywhere, and in network namespaces, where the kernel lets it.
package nattest
