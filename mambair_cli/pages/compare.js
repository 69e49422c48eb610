"use strict";
createViewer(document.getElementById("viewer"), JSON.parse(document.getElementById("data").textContent));
