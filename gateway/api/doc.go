// Package api is the gateway over HTTP: health, version, statistics and control
// MUCs under Jigasi's paths and names, and Prometheus metrics under brewline_.
package api
