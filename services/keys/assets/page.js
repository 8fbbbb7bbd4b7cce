// What the page does better with script: it takes the code of a link, shows times in the reader's
// zone, copies, uses passkeys, and warns before a secret is lost. Everything else is plain HTML.
(() => {
  "use strict";
  const all = (selector, root = document) => root.querySelectorAll(selector);

  const form = document.querySelector("form[data-code]");
  const take = () => {
    if (!form || location.hash.length < 2) return;
    form.elements.code.value = location.hash.slice(1);
    history.replaceState(null, "", location.pathname);
  };
  take();
  // A link that is opened on this page changes the address and does not load the page again.
  addEventListener("hashchange", take);

  const localize = (root) => {
    for (const time of all("time[datetime]:not([data-done])", root)) {
      const at = new Date(time.dateTime);
      const text = at.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
      if (time.title) time.title = text;
      else {
        time.title = time.textContent;
        time.textContent = text;
      }
      time.dataset.done = "";
    }
  };
  localize(document);
  let open = false;
  document.addEventListener("htmx:before:swap", () => {
    open = document.getElementById("numbers")?.open;
  });
  document.addEventListener("htmx:after:swap", () => {
    const numbers = document.getElementById("numbers");
    if (numbers && open) numbers.open = true;
    localize(document);
  });

  for (const sent of all("form[data-once]")) {
    sent.addEventListener("submit", (event) => {
      if (sent.dataset.sent) event.preventDefault();
      sent.dataset.sent = "1";
    });
  }

  let copied = !document.querySelector("[data-secret]");
  const status = document.getElementById("copied");
  const source = (id) => document.getElementById(id);
  const select = (element) => {
    if (element.select) element.select();
    else getSelection().selectAllChildren(element);
  };
  for (const button of all("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const element = source(button.dataset.copy);
      const text = element.value ?? element.textContent;
      try {
        await navigator.clipboard.writeText(text);
        copied = true;
        status.textContent = "Copied.";
      } catch {
        select(element);
        status.textContent = "The browser does not let this page copy. The text is selected: press Ctrl+C or ⌘C.";
      }
    });
  }
  document.addEventListener("copy", () => {
    copied = true;
  });
  addEventListener("beforeunload", (event) => {
    if (!copied) event.preventDefault();
  });
  // A passkey: the button has its request, or gets one, and the form sends the answer.
  for (const button of all("[data-passkey]")) {
    const { form, dataset } = button;
    const said = form.querySelector("[data-said]");
    button.hidden = false;
    button.addEventListener("click", async () => {
      said.textContent = "";
      try {
        let { request } = dataset;
        if (!request) {
          const response = await fetch(dataset.begin, { method: "POST" });
          request = await response.text();
          if (!response.ok) {
            const page = new DOMParser().parseFromString(request, "text/html");
            said.textContent = page.querySelector("[role=alert]").textContent;
            return;
          }
        }
        const { challenge, publicKey } = JSON.parse(request);
        const credential = dataset.passkey === "create"
          ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(publicKey) })
          : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(publicKey) });
        form.querySelector("[data-answer]").value = JSON.stringify({ challenge, credential });
        form.submit();
      } catch ({ name }) {
        said.textContent =
          name === "NotAllowedError" ? "No passkey was used: you or the device ended it, or there is none for this page. Try again, or use a link."
          : name === "InvalidStateError" ? "This device has a passkey of yours for this page already."
          : "This browser cannot use a passkey here. Use a link.";
      }
    });
  }
  // A secret is not kept for the button Back.
  addEventListener("pagehide", () => {
    for (const card of all("[data-secret]")) card.textContent = "The secret was shown once.";
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted) for (const sent of all("form[data-once]")) delete sent.dataset.sent;
  });
})();
