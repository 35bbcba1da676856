// Package trunk keeps the trunks alive at run time: it registers where they
// register, probes peers with OPTIONS, lets in the addresses of registrars, and
// says which trunks work.
package trunk
