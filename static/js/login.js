// The login page: the avatar at rest.
import { AvatarVisualizer } from "./avatar-visualizer.js";

new AvatarVisualizer(document.getElementById("presence")).show("resting");
