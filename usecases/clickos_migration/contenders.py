"""Who is compared in variant redirect; names of sources in its records begin with them."""

VARIANT = "redirect"
NOTHING, REROUTE, REDIRECT = CONTENDERS = ("nothing", "reroute", "redirect")

ABOUT = {
    NOTHING: "nothing done",
    REROUTE: "rerouted inside A",
    REDIRECT: "redirected over B",
}
