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

  // One rule for every date: the reader's zone, which the foot of the page names.
  const shown = (at) => new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const localize = (root) => {
    for (const title of all("svg title", root)) {
      const utc = /(\d{4}-\d\d-\d\d) (\d\d:\d\d) UTC/;
      title.textContent = title.textContent.replace(utc, (_, day, time) => shown(`${day}T${time}Z`));
    }
    for (const time of all("time[datetime]:not([data-done])", root)) {
      const at = new Date(time.dateTime);
      const text = shown(at);
      if ("day" in time.dataset) time.textContent = at.toLocaleDateString([], { dateStyle: "medium" });
      else if (!time.title) time.textContent = text;
      time.title = `${text} (${at.toISOString().slice(0, 16).replace("T", " ")} UTC)`;
      time.dataset.done = "";
    }
  };
  localize(document);
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC";
  const parts = new Intl.DateTimeFormat("en", { timeZoneName: "shortOffset" }).formatToParts();
  const { value: now } = parts.find(({ type }) => type === "timeZoneName");
  const what = zone === "UTC" ? zone : `${zone} (${now.replace("GMT", "UTC")} now)`;
  for (const named of all("[data-zone]")) {
    named.textContent = `Dates and times are in the time zone of your browser, ${what}.`;
  }
  // A day that is chosen begins and ends in the reader's zone: its offset is sent with it. One that
  // came with the page keeps its own.
  for (const input of all("input[data-offset]")) {
    const { offset } = input.dataset;
    const local = () => {
      const [year, month, day] = input.value.split("-").map(Number);
      const minutes = -new Date(year, month - 1, day + ("ends" in input.dataset ? 1 : 0)).getTimezoneOffset();
      const two = (number) => String(Math.trunc(number)).padStart(2, "0");
      const size = Math.abs(minutes);
      return minutes ? `${minutes < 0 ? "-" : "+"}${two(size / 60)}:${two(size % 60)}` : "";
    };
    const isKept = () => input.value === input.defaultValue && input.value !== "" && offset !== local();
    const label = document.querySelector(`label[for=${input.id}] small`);
    const written = label.textContent;
    const say = () => {
      label.textContent = isKept() ? written : `(${zone})`;
    };
    say();
    input.addEventListener("input", say);
    input.form.addEventListener("formdata", ({ formData }) => {
      if (input.value) formData.set(input.name, input.value + (isKept() ? offset : local()));
    });
  }
  // The boxes of the list: all at once, and no button for none.
  const count = () => {
    const button = document.querySelector("[data-ticked]");
    const pick = document.querySelector("[data-all]");
    if (!button || !pick) return;
    const boxes = [...all("#rows [name=id]")];
    const ticked = boxes.filter((box) => box.checked).length;
    const box = pick.firstElementChild;
    pick.hidden = !boxes.length;
    box.checked = ticked > 0 && ticked === boxes.length;
    box.indeterminate = ticked > 0 && !box.checked;
    button.disabled = !ticked;
    button.textContent = `Revoke the chosen keys${ticked ? ` (${ticked})` : ""}…`;
  };
  document.addEventListener("change", ({ target }) => {
    if (!target.closest("#rows")) return;
    if (target.closest("[data-all]")) for (const box of all("#rows [name=id]")) box.checked = target.checked;
    count();
  });
  count();
  addEventListener("pageshow", count);
  let open = false;
  document.addEventListener("htmx:before:swap", () => {
    open = document.getElementById("numbers")?.open;
  });
  document.addEventListener("htmx:after:swap", () => {
    const numbers = document.getElementById("numbers");
    if (numbers && open) numbers.open = true;
    localize(document);
    count();
    // A key that was searched for does not stay in the field.
    const found = document.querySelector("[data-search]");
    if (found) document.getElementById("search").value = found.dataset.search;
  });

  // What is typed next to a choice makes that choice, and another choice empties it.
  for (const typed of all("[data-choice]")) {
    const { form, dataset } = typed;
    typed.addEventListener("input", () => {
      if (typed.value) form.elements[dataset.choice].value = dataset.value;
    });
    form.addEventListener("change", ({ target }) => {
      if (target.name === dataset.choice && target.value !== dataset.value) typed.value = "";
    });
  }

  for (const sent of all("form[data-once]")) {
    sent.addEventListener("submit", (event) => {
      if (sent.dataset.sent) event.preventDefault();
      sent.dataset.sent = "1";
    });
  }

  // A sign-in elsewhere is seen without leaving a form that is filled in.
  for (const sent of all("form[data-seen]")) {
    sent.querySelector("button").hidden = false;
    sent.addEventListener("submit", async (event) => {
      event.preventDefault();
      const body = new URLSearchParams(new FormData(sent));
      const { type } = await fetch(sent.action, { method: "POST", body, redirect: "manual" }).catch(() => ({}));
      if (type !== "opaqueredirect") return sent.submit();
      const main = document.getElementById("main");
      sent.remove();
      main.tabIndex = -1;
      main.focus();
    });
  }

  const source = (id) => document.getElementById(id);
  const secret = document.querySelector("[data-secret] #secret")?.value;
  let copied = !secret;
  const select = (element) => {
    if (element.select) element.select();
    else getSelection().selectAllChildren(element);
  };
  for (const button of all("[data-copy]")) {
    button.hidden = false;
    // What happened is said at the button.
    const status = source(`${button.dataset.copy}-copied`) ?? source("copied");
    status.textContent = "";
    button.addEventListener("click", async () => {
      const element = source(button.dataset.copy);
      const text = element.value ?? element.textContent;
      try {
        await navigator.clipboard.writeText(text);
        copied ||= text.includes(secret);
        status.textContent = "Copied.";
      } catch {
        select(element);
        status.textContent = "The browser does not let this page copy. The text is selected: press Ctrl+C or ⌘C.";
      }
    });
  }
  document.addEventListener("copy", ({ target }) => {
    const { value, selectionStart: from, selectionEnd: to } = target;
    const text = to === undefined ? String(getSelection()) : value.slice(from, to);
    copied ||= text.includes(secret);
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
