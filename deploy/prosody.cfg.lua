-- What a shard's Prosody needs for Brewline: /etc/prosody/conf.d/brewline.cfg.lua,
-- the same on every shard. Only the virtual host is new; the other lines say
-- what to add to sections that are there.

-- A virtual host for calls. Each call logs in as a user of its own with the one
-- secret. Since nobody else logs in here, Jicofo, the lobby and the limits can
-- tell calls from people by the domain.
VirtualHost "calls.meet.example.org"
    authentication = "jitsi-shared-secret"
    shared_secret = "the content of /etc/brewline/calls.secret"
    modules_enabled = { "bosh", "websocket", "ping" }

-- BOSH comes over HTTPS, which nginx or HAProxy ends: without this Prosody
-- takes it for plain and offers no login by password. (Jitsi sets it.)
-- consider_bosh_secure = true
-- consider_websocket_secure = true

-- mod_limits lets a client send 10 kB/s, which delays every exchange of a
-- connection that is kept open by some 40 ms. Let more through:
-- limits = { c2s = { rate = "1mb/s" } }
-- or, for a login by account (unlimited_jids knows whole JIDs, not domains):
-- unlimited_jids = { "brewline@auth.meet.example.org" }

-- Where mod_rate_limit is enabled: all calls come from one address.
-- rate_limit_whitelist = { "127.0.0.1", "::1", "192.0.2.20" }

-- In VirtualHost "meet.example.org", if calls shall not wait in the lobby:
-- muc_lobby_whitelist = { "calls.meet.example.org" }

-- In Component "conference.meet.example.org" "muc", if calls shall not count
-- where mod_muc_max_occupants is enabled:
-- muc_access_whitelist = { "calls.meet.example.org" }
