// Package gateway is the process: it takes calls from the SIP user agent,
// decides whether to admit them, runs them, and tells how it fares.
package gateway
