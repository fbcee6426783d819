// The login page: the avatar at rest.
import { AvatarVisualizer } from "./avatar-visualizer.js";
import { byId } from "./dom.js";

new AvatarVisualizer(byId("visualizer", HTMLCanvasElement)).show("resting");
