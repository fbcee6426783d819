// The door: the avatar's presence, at rest.
import { Presence } from "./presence.js";

new Presence(document.getElementById("presence")).show("resting");
