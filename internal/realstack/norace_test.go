//go:build !race

package realstack

const raceDetector = false
