// Package api is the gateway over HTTP: health, version and statistics under
// Jigasi's paths and names, and Prometheus metrics under brewline_.
package api
