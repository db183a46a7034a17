# The agent: docs/consul.md says what each of these is for.

datacenter = "dc1"
node_name  = "consul"

# DNS for the balancer, on port 8600; the HTTP API stays on loopback.
addresses {
  dns = "0.0.0.0"
}

disable_update_check = true

dns_config {
  # Without this it is 0, and nobody may keep an answer.
  service_ttl = {
    "*" = "1s"
  }
  # An answer that does not fit UDP says so.
  enable_truncate = true
  # Who gives a warning is left out too; without this, only who is critical.
  only_passing = true
}

services {
  id      = "b1"
  name    = "web"
  address = "172.30.53.11"
  port    = 8080
  weights = {
    passing = 3
    warning = 1
  }
  checks = [
    {
      http     = "http://172.30.53.11:8080/healthz"
      interval = "2s"
      timeout  = "1s"
    }
  ]
}

services {
  id      = "b2"
  name    = "web"
  address = "172.30.53.12"
  port    = 8080
  weights = {
    passing = 2
    warning = 1
  }
  checks = [
    {
      http     = "http://172.30.53.12:8080/healthz"
      interval = "2s"
      timeout  = "1s"
    }
  ]
}

services {
  id      = "b3"
  name    = "web"
  address = "172.30.53.13"
  port    = 8080
  weights = {
    passing = 1
    warning = 1
  }
  checks = [
    {
      http     = "http://172.30.53.13:8080/healthz"
      interval = "2s"
      timeout  = "1s"
    }
  ]
}
