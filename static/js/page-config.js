// Addresses and limits that the server wrote into the pages about voices.

export const config = JSON.parse(document.getElementById("page").textContent);

export function detailAddress(id) {
  return config.detailUrl.replace(config.anyId, id);
}

export function profileAddress(id, rest = "") {
  return `${config.apiUrl}/${id}${rest}`;
}
