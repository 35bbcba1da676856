package check

import (
	"context"
	"fmt"
	"time"

	"brewline/brewery"
)

// checkBalancer asks the load balancer several times, over new connections,
// which shard a room belongs to: it must say the same every time.
func checkBalancer(ctx context.Context, d *brewery.Deployment, o Options, say func(Result)) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	began := time.Now()
	r := balancer(ctx, d)
	r.Subject, r.Step, r.Took = "deployment "+d.Name(), "balancer", time.Since(began)
	say(r)
}

func balancer(ctx context.Context, d *brewery.Deployment) Result {
	header := d.Config().ShardHeader
	room, seen := probeRoom(), map[string]bool{}
	var shard *brewery.Shard
	for range headerTries {
		says, sh, err := d.TryBalancer(ctx, room)
		if err != nil {
			return Result{Status: Fail, Detail: err.Error(),
				Remedy: remedy(err, "deployment's balancer", "correct the deployment's balancer: callers of rooms that no shard has yet get 480")}
		}
		seen[says], shard = true, sh
	}
	switch {
	case len(seen) > 1:
		return Result{Status: Fail, Detail: fmt.Sprintf("%s differs from request to request for one room: %s", header, keys(seen)),
			Remedy: "let the balancer choose the shard by ?room= alone, or meetings are split: see deploy/haproxy.cfg"}
	case seen[""]:
		return Result{Status: OK, Detail: "it answers, without " + header + ": the shards are asked where a room has been opened",
			Remedy: "let it name the shard in " + header + " (docker: DEPLOYMENTINFO_SHARD)"}
	case shard == nil:
		return Result{Status: Warn, Detail: fmt.Sprintf("%s says %s, which is header_value of no shard, or of several", header, keys(seen)),
			Remedy: "set header_value of that shard to it"}
	}
	return Result{Status: OK, Detail: fmt.Sprintf("%s says %q %d times for one room", header, shard.Config().HeaderValue, headerTries)}
}
